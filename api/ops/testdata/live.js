// Watches a job go on, and finds a failure.
// Arguments: URL of the site, password of vera (viewer), a job of the tenant acme with one instance
// of three that failed, and a URL that makes the next instance of it succeed when it is asked for.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, job, step] = process.argv.slice(2)

// next makes an instance succeed, and waits until the page shows it by itself.
async function next(page, ended) {
  assert.ok((await page.request.get(step)).ok())
  await page.getByText(`${ended} of 3 ended`).waitFor()
}

async function progress({ page, look, unheard }) {
  let loads = 0
  await logIn(page, `${url}/jobs/${job}`, 'vera', password)
  page.on('load', () => loads++)
  await page.getByText('1 of 3 ended').waitFor()
  await page.getByText('1 attempt without success').click()
  await next(page, 2)
  assert.equal(await page.locator('td .state.succeeded').count(), 1)
  assert.ok(await page.getByText('attempt 1,').isVisible(), 'what was opened is closed')
  assert.equal(await page.getByRole('link', { name: /: succeeded$/ }).innerText(), '✓')
  await look('running')
  // While nobody answers it says so, and goes on afterwards.
  const warning = page.getByRole('status').getByText('No answer since')
  await unheard(async () => {
    await page.route('**/jobs/**', route => route.abort())
    await warning.waitFor()
    await page.unroute('**/jobs/**')
    await warning.waitFor({ state: 'hidden' })
  })
  await next(page, 3)
  await page.locator('#job:not([data-live])').waitFor()
  await look('ended')
  assert.equal(loads, 0)
}

async function failure({ page, look, press }) {
  await logIn(page, url + '/', 'vera', password)
  await page.getByRole('link', { name: /1 failed or unknown/ }).click()
  await page.waitForURL('**/failures?window=1h')
  await look('failures')
  await press('link', 'CPS.0005')
  await look('items')
  assert.match(await page.locator('tbody').innerText(), /phone-1\s+acme/)
  await press('link', 'phone-1')
  assert.equal(page.url(), url + '/instances/phone-1')
  assert.match(await page.locator('main').innerText(), /Phone <not> found\./)
  await look('instance')
  await page.getByRole('searchbox').fill(job + '-2')
  await press('button', 'Find')
  assert.equal(page.url(), `${url}/jobs/${job}/items/2`)
}

async function filter({ page, look, press }) {
  const rows = () => page.locator('tbody tr td:first-child a').count()
  await logIn(page, url + '/jobs', 'vera', password)
  assert.equal(await rows(), 1)
  for (const [label, value, left] of [
    ['Error code', 'CPS.0005', 1], ['Error code', 'CPS.0006', 0], ['Tenant', 'acme', 1], ['Tenant', 'globex', 0],
    ['Instance', 'phone-2', 1], ['Instance', 'phone-9', 0], ['Label', 'site=Köln <1>', 1], ['Label', 'site=Ulm', 0],
    ['Created from (UTC)', '2020-01-01T00:00', 1], ['Created before (UTC)', '2020-01-01T00:00', 0]
  ]) {
    await page.goto(url + '/jobs')
    await page.getByLabel(label, { exact: true }).fill(value)
    await press('button', 'Show')
    assert.equal(await rows(), left, `${label} ${value}`)
  }
  for (const [state, left] of [['partial', 1], ['running', 0]]) {
    await page.goto(url + '/jobs')
    await page.getByLabel('State').selectOption(state)
    await press('button', 'Show')
    assert.equal(await rows(), left, state)
  }
  await look('filtered')
}

tell(url, [
  { name: 'live', options: desktop, story: progress },
  { name: 'find', options: darkPhone, story: failure },
  { name: 'filter', options: desktop, story: filter }
])
