// Verifies webhooks with the official library of Standard Webhooks. Input: a JSON array of
// {secret, headers, body}; output: one line for each, "ok" or what is wrong with it.
const { readFileSync } = require('node:fs')
const { Webhook } = require('standardwebhooks')

for (const { secret, headers, body } of JSON.parse(readFileSync(0, 'utf8'))) {
  try {
    new Webhook(secret).verify(body, headers)
    console.log('ok')
  } catch (error) {
    console.log(error.message)
  }
}
