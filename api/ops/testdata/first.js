// Makes the first operator with a link, and logs in under a name that has no https.
// Arguments: URL of the site, its URL under another name, the link's secret and a password.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, fill } = require('./site')

const [url, elsewhere, secret, password] = process.argv.slice(2)

async function first({ page, look, press }) {
  await page.goto(url + '/')
  assert.match(await page.getByRole('alert').innerText(), /There is no operator yet/)
  await look('closed')
  await page.goto(url + '/first-operator?token=guessed')
  assert.match(await page.getByRole('alert').innerText(), /This link is not good/)
  await look('stale')
  await page.goto(url + '/first-operator?token=' + secret)
  await look('first')
  await page.getByLabel('Name').fill('alice')
  await page.getByLabel('Password, 12').fill(password)
  await page.getByLabel('The password once more').fill('another one')
  await press('button', 'Make the first operator')
  assert.equal(await page.getByRole('alert').innerText(), 'The passwords differ.')
  assert.equal(await page.getByLabel('Name').inputValue(), 'alice')
  await page.getByLabel('Password, 12').fill(password)
  await page.getByLabel('The password once more').fill(password)
  await press('button', 'Make the first operator')
  assert.equal(page.url(), url + '/')
  assert.match(await page.locator('header').innerText(), /alice \(admin\)/)
}

async function plain({ page, look }) {
  await page.goto(elsewhere + '/tenants')
  await fill(page, 'alice', password)
  assert.equal(page.url(), elsewhere + '/login?next=%2Ftenants')
  assert.match(await page.getByRole('alert').innerText(), /the cookie of the login did not come back.*https/s)
  await look('not-kept')
  await page.reload() // it is said once
  assert.equal(await page.getByRole('alert').count(), 0)
  await page.goto(elsewhere + '/tenants')
  assert.equal(await page.getByRole('alert').count(), 0)
}

tell(url, [
  { name: 'first', options: desktop, story: first },
  { name: 'plain', at: elsewhere, options: darkPhone, story: plain }
])
