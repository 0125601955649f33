// "/" goes to the search; the arrows go through what it has found.
export function listen() {
  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.altKey || e.metaKey) return
    const typing = e.target.matches?.('input, textarea, select, [contenteditable]')
    if (e.key === '/' && !typing) {
      const search = document.querySelector('.find input')
      if (!search) return
      e.preventDefault()
      search.focus()
      search.select()
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key]
    if (step) walk(e, step)
  })
}

function walk(e, step) {
  const found = [...document.querySelectorAll('[data-found] a')]
  const at = found.indexOf(document.activeElement)
  const inSearch = e.target.matches?.('.find input')
  if (!found.length || at < 0 && !inSearch) return
  e.preventDefault()
  const next = at + step
  if (next < 0) document.querySelector('.find input')?.focus()
  else found[Math.min(next, found.length - 1)].focus()
}
