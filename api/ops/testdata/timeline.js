// Reads what happened to an item, from the page of its job.
// Arguments: URL of the site, password of vera (viewer), a job whose first instance had four attempts, and another one whose
// second one waits.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, job, other] = process.argv.slice(2)

async function read({ page, look, press }) {
  await logIn(page, `${url}/jobs/${job}`, 'vera', password)
  await press('link', 'attempts at phone-7')
  assert.equal(page.url(), `${url}/jobs/${job}/items/0`)
  assert.deepEqual(await page.locator('.attempt h2').allInnerTexts(), ['Attempt 1 retrying', 'Attempt 2 failed', 'Attempt 3 lost', 'Attempt 4 succeeded'])
  await look('ended')
  await page.goto(`${url}/jobs/${other}/items/1`)
  await page.locator('#item[data-live]').waitFor()
  await look('waiting')
}

tell(url, [
  { name: 'timeline', options: desktop, story: read },
  { name: 'timelinephone', options: darkPhone, story: read }
])
