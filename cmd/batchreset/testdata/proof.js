// Verifies a proof with Node's own Ed25519. Input: {proof, keys}; output: true or false.
const { readFileSync } = require('node:fs')
const { createPublicKey, verify } = require('node:crypto')

const { proof, keys } = JSON.parse(readFileSync(0, 'utf8'))
const [head, payload, signature] = proof.split('.')
const { kid } = JSON.parse(Buffer.from(head, 'base64url'))
const key = createPublicKey({ key: keys.keys.find(k => k.kid === kid), format: 'jwk' })
console.log(verify(null, Buffer.from(`${head}.${payload}`), key, Buffer.from(signature, 'base64url')))
