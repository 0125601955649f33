// Logs in and out of the operators' site as people do, and decides things there.
// Arguments: URL of the site, password of alice (operator) and vera (viewer), and a job of the
// tenant acme with one instance that failed and two that wait.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, accessible, fits, fill } = require('./site')

const [url, password, job] = process.argv.slice(2)

async function operator({ page, shot, look, press, unheard }) {
  await page.goto(url + '/')
  assert.match(page.url(), /\/login\?next=%2F$/)
  await accessible(page)
  await shot('login')
  await fill(page, 'alice', 'a wrong password')
  assert.equal(await page.getByRole('alert').innerText(), 'The name or the password is wrong.')
  assert.equal(await page.locator('#name').inputValue(), 'alice')
  await shot('wrong')
  await fill(page, 'alice', password)
  assert.equal(page.url(), url + '/')
  assert.match(await page.locator('header').innerText(), /alice \(operator\)/)
  await look('overview')
  await unheard(async () => {
    await page.goto(url + '/asynq/queues/reset-0?status=pending')
    await page.getByText('reset-0').first().waitFor()
    await page.getByRole('checkbox').first().waitFor() // tasks can be chosen, to do something with them
    await shot('asynq')
  })
  await decide({ page, look, press })
  await page.goto(url + '/')
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL(/\/login$/)
  await page.goto(url + '/')
  assert.match(page.url(), /\/login\?/)
}

// decide cancels and retries a job, and halts a tenant, each after it was asked once more.
async function decide({ page, look, press }) {
  await page.goto(url + '/jobs')
  await page.getByLabel('Tenant').fill('acme')
  await press('button', 'Show')
  await look('jobs')
  await press('link', job.slice(0, 8) + '…')
  assert.match(await page.locator('main').innerText(), /CPS\.0005 Phone <not> found\./)
  await look('job')
  await press('link', 'Cancel 2 waiting')
  await look('cancel')
  await page.getByLabel('Reason, for the audit trail').fill('wrong list')
  await press('button', 'Cancel 2 instances')
  assert.equal(page.url(), `${url}/jobs/${job}`)
  assert.equal(await page.locator('td .state.cancelled').count(), 2)
  await press('link', 'Retry 1 that failed')
  const failed = page.getByLabel('1 failed'); const cancelled = page.getByLabel('2 cancelled')
  assert.ok(await failed.isChecked() && !(await cancelled.isChecked()))
  await look('retry')
  await failed.uncheck()
  await press('button', 'Reset the chosen instances') // none is
  assert.match(await page.getByRole('alert').innerText(), /Choose which instances/)
  await page.goBack()
  await failed.uncheck()
  await cancelled.check()
  await press('button', 'Reset the chosen instances')
  assert.equal(await page.locator('td .state.pending').count(), 2)
  assert.equal(await page.locator('td .state.failed').count(), 1)

  await page.goto(url + '/tenants')
  await page.getByLabel('Another tenant').fill('acme')
  await press('button', 'Halt')
  await page.getByLabel('Reason').fill('to be safe')
  await look('halt')
  await press('button', 'Halt acme')
  assert.match(await page.locator('table').innerText(), /halted since .*: to be safe/)
  await look('tenants')
  await press('link', 'Resume acme')
  await look('resume')
  await page.getByLabel('Reason').fill('checked')
  await press('button', 'Resume acme')
  assert.doesNotMatch(await page.locator('table').innerText(), /halted/)
  await page.goto(url + '/audit')
  await look('audit')
}

async function viewer({ page, shot, look, unheard }) {
  await page.goto(url + '/asynq')
  await look('login')
  await unheard(async () => {
    await fill(page, 'vera', password)
    await page.waitForURL(/\/asynq/)
    await page.goto(url + '/asynq/queues/reset-0?status=pending')
    await page.getByText('reset-0').first().waitFor()
    await page.getByText(/^Pending/).first().waitFor()
    assert.equal(await page.getByRole('checkbox').count(), 0)
    await shot('asynq')
  })
  await page.goto(url + '/')
  assert.match(await page.locator('header').innerText(), /vera \(viewer\)/)
  assert.equal(await page.getByText('Profiles').count(), 0)
  await look('overview')
  await page.goto(`${url}/jobs/${job}`)
  assert.equal(await page.getByRole('link', { name: /^(Cancel|Retry)/ }).count(), 0)
  await look('job')
  await page.goto(url + '/tenants')
  assert.equal(await page.getByRole('link', { name: /^(Halt|Resume)/ }).count(), 0)
  await fits(page)
  await page.goto(url + '/debug/pprof/')
  assert.match(await page.getByRole('alert').innerText(), /Viewers may look, not change/)
  await shot('refused')
}

tell(url, [
  { name: 'desktop', options: desktop, story: operator },
  { name: 'dark-phone', options: darkPhone, story: viewer }
])
