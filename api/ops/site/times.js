// Times are shown as the clock on the wall says, with UTC when somebody points at them, or the
// other way round.
const key = 'batchreset-times'
const pad = n => String(n).padStart(2, '0')

function prefersUTC() {
  try {
    return localStorage.getItem(key) === 'utc'
  } catch {
    return false // this browser keeps nothing
  }
}

function local(d) {
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`
}

const utc = d => d.toISOString().slice(0, 19).replace('T', ' ') + 'Z'

export function showTimes(root) {
  const asUTC = prefersUTC()
  for (const t of root.querySelectorAll('time[datetime]')) {
    const d = new Date(t.dateTime)
    const [shown, other] = asUTC ? [utc(d), local(d) + ' local time'] : [local(d), utc(d)]
    if (t.textContent !== shown) t.textContent = shown
    t.title = other
  }
}

// offerUTC shows the switch, and calls changed when somebody uses it.
export function offerUTC(changed) {
  const button = document.querySelector('[data-times]')
  if (!button) return
  const say = () => { button.textContent = prefersUTC() ? 'Times: UTC' : 'Times: local' }
  button.hidden = false
  say()
  button.addEventListener('click', () => {
    try {
      localStorage.setItem(key, prefersUTC() ? 'local' : 'utc')
    } catch {
      return
    }
    say()
    changed()
  })
}
