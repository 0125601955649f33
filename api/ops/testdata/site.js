// What the stories about the operators' site have in common.
const { chromium } = require('playwright-core')
const { source: axe } = require('axe-core')
const assert = require('node:assert/strict')
const path = require('node:path')

// tell tells stories, each on a page of its own with its options, at the site of a URL or at
// another one. Everything at ops.example is on this machine, without https.
function tell(url, stories) {
  run(url, stories).catch(e => {
    console.error(e)
    process.exit(1)
  })
}

async function run(url, stories) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--host-resolver-rules=MAP ops.example 127.0.0.1'] })
  try {
    for (const { name, at, options, story } of stories) await withPage(browser, at || url, name, options, story)
  } finally {
    await browser.close()
  }
}

const desktop = { viewport: { width: 1280, height: 800 } }
const darkPhone = { viewport: { width: 390, height: 844 }, colorScheme: 'dark' }

// withPage opens a page for a story, and fails if it writes an error to the console, or asks
// somebody else for something.
async function withPage(browser, url, name, options, story) {
  const context = await browser.newContext({ ...options, bypassCSP: false, ignoreHTTPSErrors: true })
  const page = await context.newPage()
  const wrong = []
  let ours = true
  page.on('console', m => { if (ours && m.type() === 'error' && !/status of 4\d\d/.test(m.text())) wrong.push(m.text()) })
  page.on('pageerror', e => wrong.push(String(e)))
  page.on('response', r => { if (!r.url().startsWith(url)) wrong.push('answered by ' + r.url()) })
  const shot = async what => {
    if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `ops-${name}-${what}.png`) })
  }
  // unheard is for what has to complain: asynqmon asks for fonts, which its policy forbids.
  const unheard = async f => {
    ours = false
    await f()
    ours = true
  }
  const look = async what => {
    await accessible(page)
    await fits(page)
    await shot(what)
  }
  const press = async (role, name) => {
    await Promise.all([page.waitForEvent('load'), page.getByRole(role, { name, exact: true }).click()])
  }
  await story({ page, shot, look, press, unheard })
  await context.close()
  assert.deepEqual(wrong, [])
}

// accessible fails at a serious fault. axe runs in a page of its own, because ours allows no script.
async function accessible(page) {
  const context = await page.context().browser().newContext({ bypassCSP: true, viewport: page.viewportSize() })
  const copy = await context.newPage()
  await context.addCookies(await page.context().cookies())
  await copy.goto(page.url())
  await copy.evaluate(axe)
  const { violations } = await copy.evaluate(() => globalThis.axe.run())
  await context.close()
  const serious = violations.filter(v => ['serious', 'critical'].includes(v.impact))
  assert.deepEqual(serious.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html)}`), [])
}

async function fits(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page is wider than the screen')
}

// fill works as somebody without a mouse does.
async function fill(page, name, secret) {
  await page.locator('#name').focus()
  await page.keyboard.press('Control+A')
  await page.keyboard.type(name)
  await page.keyboard.press('Tab')
  await page.keyboard.type(secret)
  await Promise.all([page.waitForEvent('load'), page.keyboard.press('Enter')])
}

// logIn is fill for somebody who wants to get to a page.
async function logIn(page, url, name, secret) {
  await page.goto(url)
  await fill(page, name, secret)
  assert.equal(page.url(), url)
}

module.exports = { tell, desktop, darkPhone, accessible, fits, fill, logIn }
