// Looks at runs, decides about them, and watches one go on.
// Arguments: URL of the site, password of alice and bob (operators) and vera (viewer), the IDs of four runs of the tenant
// acme that bob has asked for: one that waits for approval, one in its third wave, one that paused because too many
// failed, one that has ended; and a URL that has all succeed that is open of the second.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, waiting, waves, paused, ended, step] = process.argv.slice(2)

const main = page => page.locator('main').innerText()
const state = page => page.locator('.lead .state').innerText()

async function list({ page, look, press }) {
  const names = async () => (await page.locator('tbody td:first-child a').allInnerTexts()).join()
  await logIn(page, url + '/runs', 'vera', password)
  assert.equal(await names(), 'Quarter end,Recall 7,Warehouse,Lab 4')
  await look('list')
  for (const [label, value, left] of [['Tenant', 'globex', ''], ['Tenant', 'acme', 'Quarter end,Recall 7,Warehouse,Lab 4'], ['Label', 'site=Köln', 'Warehouse'], ['Created before (UTC)', '2020-01-01T00:00', '']]) {
    await page.goto(url + '/runs')
    await page.getByLabel(label, { exact: true }).fill(value)
    await press('button', 'Show')
    assert.equal(await names(), left, `${label} ${value}`)
  }
  for (const [value, left] of [['waiting', 'Quarter end'], ['paused', 'Warehouse'], ['partial', 'Lab 4'], ['rejected', '']]) {
    await page.goto(url + '/runs')
    await page.getByLabel('State').selectOption(value)
    await press('button', 'Show')
    assert.equal(await names(), left, value)
  }
}

async function approval({ page, look, press }) {
  await logIn(page, `${url}/runs/${waiting}`, 'alice', password)
  assert.match(await main(page), /it has 1 of 2 approvals/)
  await look('waiting')
  await press('link', 'Approve 4,312 instances')
  await look('approve')
  await press('link', 'Back')
  await press('link', 'Approve 4,312 instances')
  await page.getByLabel('Comment, for the record of the run').focus()
  await page.keyboard.type('looked at the list')
  await Promise.all([page.waitForEvent('load'), page.keyboard.press('Enter')])
  assert.equal(page.url(), `${url}/runs/${waiting}`)
  assert.doesNotMatch(await main(page), /Waits for approval/)
  assert.match(await main(page), /carol\s+approved\s+list is that of ticket 42[^]*alice\s+approved\s+looked at the list/)
}

async function submitter({ page, shot }) {
  await logIn(page, `${url}/runs/${waiting}`, 'bob', password)
  assert.match(await main(page), /You have asked for it, so others must approve it/)
  assert.equal(await page.getByRole('link', { name: /^Approve/ }).count(), 0)
  await shot('own')
  await page.goto(`${url}/runs/${waiting}/approve`)
  assert.match(await page.getByRole('alert').innerText(), /you have asked for it: somebody else must approve it/)
}

async function goesOn({ page, look, shot, press }) {
  let loads = 0
  await logIn(page, `${url}/runs/${waves}`, 'alice', password)
  await page.getByText('107 of 3,000 instances ended').waitFor()
  await look('wave')
  page.on('load', () => loads++)
  assert.ok((await page.request.get(step)).ok())
  await page.getByText('150 of 3,000 instances ended').waitFor() // by itself
  await page.locator('.waves .now').getByText('Wave 4').waitFor()
  assert.equal(loads, 0)
  await press('link', 'Pause')
  await shot('pause')
  await page.getByLabel('Reason, for the audit trail').fill('to be safe')
  await press('button', 'Pause the run')
  assert.match(await main(page), /Paused: paused by hand: to be safe, since/)
  await press('link', 'Resume')
  await press('button', 'Resume the run')
  assert.equal(await state(page), 'running')
}

async function budget({ page, look, press }) {
  await logIn(page, `${url}/runs/${paused}`, 'alice', password)
  assert.match(await main(page), /Paused: too many failed: 4 failed and 1 unknown/)
  await look('paused')
  await press('link', 'CPS.0005')
  assert.equal(await page.locator('tbody tr').count(), 3)
  await look('failed')
  await page.locator('tbody a').first().click()
  await page.waitForURL('**/instances/**')
  await page.locator('tbody a[href^="runs/"]').first().click()
  await page.waitForURL(`${url}/runs/${paused}`)
  await press('link', 'Resume')
  await look('resume')
  await press('button', 'Resume the run') // with the budget that it has
  assert.match(await page.getByRole('alert').innerText(), /would pause again at once/)
  await page.goBack()
  await page.getByLabel('New budget of failures').fill('20%')
  await page.getByLabel('Reason, for the audit trail').fill('the rest is another model')
  await press('button', 'Resume the run')
  assert.equal(await state(page), 'running')
  assert.match(await main(page), /5 of 64 that ended \(7\.8%\), allowed: 20%/)
}

async function again({ page, look, shot, press }) {
  await logIn(page, `${url}/runs/${ended}`, 'alice', password)
  await look('ended')
  await press('link', '1 unknown')
  await page.locator('tbody a[href^="jobs/"]:has(code)').click()
  await page.waitForURL('**/jobs/*')
  await page.locator('dl').getByRole('link', { name: ended }).click()
  await page.waitForURL(`${url}/runs/${ended}`)
  await press('link', 'Retry 7 that failed')
  const failed = page.getByLabel('7 failed'); const unknown = page.getByLabel('1 unknown')
  assert.ok(await failed.isChecked() && !(await unknown.isChecked()))
  await look('retry')
  await press('button', 'Reset the chosen instances')
  assert.match(await main(page), /57 of 64 instances ended · round 2/)
  await press('link', 'Cancel 7 instances that have not begun')
  await shot('cancel')
  await page.getByLabel('Reason, for the audit trail').fill('wrong list')
  await press('button', 'Cancel 7 instances that have not begun')
  assert.match(await main(page), /nothing begins any more/)
  assert.equal(await page.getByRole('link', { name: /^(Cancel|Pause|Resume|Retry)/ }).count(), 0)
  await page.getByRole('searchbox').fill(ended)
  await press('button', 'Find')
  assert.equal(page.url(), `${url}/runs/${ended}`)
  await press('link', 'Who decided')
  assert.match(await page.locator('table').innerText(), /run-cancel[^]*run-retry/)
  await shot('decided')
}

async function viewer({ page, look }) {
  await logIn(page, url + '/runs', 'vera', password)
  await look('list')
  for (const [name, id] of [['waiting', waiting], ['wave', waves], ['paused', paused], ['ended', ended]]) {
    await page.goto(`${url}/runs/${id}`)
    assert.equal(await page.getByRole('link', { name: /^(Approve|Reject|Pause|Resume|Cancel|Retry)/ }).count(), 0)
    await look(name)
  }
  await page.goto(`${url}/runs/${paused}/instances`)
  await look('instances')
}

// withoutScripts decides nothing: it looks whether the page is the same.
async function withoutScripts({ page }) {
  await logIn(page, `${url}/runs/${waiting}`, 'alice', password)
  assert.match(await main(page), /it has 1 of 2 approvals/)
  await page.getByRole('link', { name: 'Reject 4,312 instances' }).click()
  await page.getByRole('button', { name: 'Reject 4,312 instances' }).waitFor()
}

tell(url, [
  { name: 'runs', options: desktop, story: list },
  { name: 'runs-phone', options: darkPhone, story: viewer },
  { name: 'runs-submitter', options: desktop, story: submitter },
  { name: 'runs-still', options: { ...desktop, javaScriptEnabled: false }, story: withoutScripts },
  { name: 'runs-approval', options: desktop, story: approval },
  { name: 'runs-wave', options: desktop, story: goesOn },
  { name: 'runs-budget', options: desktop, story: budget },
  { name: 'runs-again', options: desktop, story: again }
])
