// Makes a token, which is shown once, and imports a list into the fleet.
// Arguments: URL of the site and a password.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, fits, logIn } = require('./site')

const [url, password] = process.argv.slice(2)

async function token({ page, look, shot, press }) {
  await logIn(page, url + '/callers', 'ada', password)
  await press('link', 'Make a token')
  await look('token-form')
  await page.getByLabel('Tenant, whose').fill('acme')
  await page.getByLabel('Owner: which').fill('alice')
  await page.getByLabel('Days until').fill('many')
  await press('button', 'Look at it')
  assert.match(await page.getByRole('alert').innerText(), /The field days must be a whole number/)
  assert.equal(await page.getByLabel('Owner: which').inputValue(), 'alice')
  await page.getByLabel('Days until').fill('30')
  await page.getByLabel('cancel: cancel').uncheck()
  await page.getByLabel('Networks').fill('10.2.0.0/16')
  await press('button', 'Look at it')
  assert.match(await page.locator('main').innerText(), /Make a token for acme\?.*submit, read.*from 10\.2\.0\.0\/16/s)
  await look('token-ask')
  await page.getByLabel('Reason').fill('for CI')
  await press('button', 'Make the token')
  const secret = await page.locator('#secret').innerText()
  assert.match(secret, /^brt_[A-Z2-7]{52}$/)
  await fits(page)
  await shot('token-made')
  assert.ok(!page.url().includes(secret))
  // The browser asks whether to send the form again, and does.
  await page.reload()
  assert.match(await page.locator('body').innerText(), /This form was sent before, and nothing is done twice/)
  assert.ok(!(await page.content()).includes(secret))
  await page.goto(url + '/callers')
  assert.equal(await page.locator('tbody tr').count(), 1)
  assert.ok(!(await page.content()).includes(secret))
  await look('callers')
}

async function list({ page, look, press, shot }) {
  await logIn(page, url + '/fleet', 'ada', password)
  await look('fleet')
  await press('link', 'Import a list')
  await look('import-form')
  await page.getByLabel('Or paste it').fill('instance_id,tenant,protected\nphone-1,globex,\nphone-2,acme,false\nphone-3,acme,\n')
  await press('button', 'Look what it would do')
  assert.match(await page.locator('#counts').innerText(), /protection ended.*1.*moved to another tenant.*1.*new.*1/s)
  await fits(page)
  await shot('import-preview')
  await page.getByLabel('Reason').fill('ticket 42')
  await press('button', 'Change 3 instances')
  assert.match(await page.locator('main').innerText(), /The list is imported/)
  await fits(page)
  await shot('import-done')
  await page.reload()
  assert.match(await page.locator('body').innerText(), /has changed since it was looked at/)
  await page.goto(url + '/instances/phone-1')
  assert.match(await page.locator('.facts').innerText(), /globex/)
  await look('instance')
  await page.goto(url + '/instances/phone-1/change')
  await look('instance-change')
  await page.goto(url + '/tenants/globex')
  await look('tenant')
}

tell(url, [
  { name: 'manage', options: desktop, story: token },
  { name: 'manage-phone', options: darkPhone, story: list }
])
