// Looks at workers and control planes, and has one be quiet.
// Arguments: URL of the site, password of alice (operator) and vera (viewer), ID of a worker that works.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, worker] = process.argv.slice(2)

const main = page => page.locator('main').innerText()

async function workers({ page, look, press }) {
  await logIn(page, url + '/workers', 'vera', password)
  assert.match(await main(page), /Workers of different versions run side by side/)
  assert.equal(await page.locator('tbody tr').count(), 3)
  await look('workers')
  await press('link', worker)
  assert.equal(page.url(), `${url}/workers/${worker}`)
  assert.equal(await page.getByRole('link', { name: 'Quiet', exact: true }).count(), 0)
  await look('worker')
  await page.goto(url + '/')
  await look('overview')
}

async function planes({ page, look, shot }) {
  await logIn(page, url + '/control-planes', 'vera', password)
  assert.match(await main(page), /answers slowly: half of its calls take/)
  assert.equal(await page.locator('nav [aria-current]').innerText(), 'Control planes')
  await look('planes')
  await page.getByRole('heading', { name: 'lab', exact: true }).scrollIntoViewIfNeeded()
  await page.evaluate(() => document.querySelectorAll('section')[1].scrollIntoView())
  await shot('slow')
}

async function quiet({ page, look, press }) {
  await logIn(page, `${url}/workers/${worker}`, 'alice', password)
  await press('link', 'Stop')
  await look('stop')
  await press('link', 'Back')
  await press('link', 'Quiet')
  assert.match(await main(page), /2 instances that are being reset now go on to their end/)
  await look('quiet')
  await page.getByLabel('Reason, for the audit trail').focus()
  await page.keyboard.type('patch day')
  await Promise.all([page.waitForEvent('load'), page.keyboard.press('Enter')])
  assert.equal(page.url(), `${url}/workers/${worker}`)
}

tell(url, [
  { name: 'machinery', options: desktop, story: workers },
  { name: 'machinery-phone', options: darkPhone, story: workers },
  { name: 'planes', options: desktop, story: planes },
  { name: 'planes-phone', options: darkPhone, story: planes },
  { name: 'quiet', options: desktop, story: quiet },
])
