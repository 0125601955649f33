// Tables can be sorted by their columns. What is sorted are the rows on the page; it is kept in the
// page's address, so that it stays when the page is updated, and for whoever gets the link. On a
// phone each row is a card, and each cell says what it is.
const param = 'sort'

export function dressTables(root) {
  for (const table of root.querySelectorAll('.wide > table')) dress(table)
}

// chosen is which column of which table the address says, and which way.
function chosen() {
  const [table, column, direction] = (new URLSearchParams(location.search).get(param) ?? '').split('.')
  return { table, column, down: direction === 'down' }
}

const nameOf = table => table.parentElement.getAttribute('aria-label') ?? ''

function dress(table) {
  const heads = [...table.querySelectorAll('thead th')]
  const rows = [...table.querySelectorAll('tbody > tr')].filter(r => r.cells.length === heads.length)
  const merged = table.querySelector('tbody [rowspan]') // a row has fewer cells than there are heads
  for (const row of merged ? [] : rows) {
    heads.forEach((head, n) => { if (head.textContent.trim()) row.cells[n].dataset.label = head.textContent.trim() })
  }
  heads.forEach((head, n) => {
    const number = !merged && rows.length > 0 && rows.every(r => isNumber(r.cells[n])) && rows.some(r => r.cells[n].textContent.trim() !== '–')
    head.classList.toggle('num', number)
    for (const row of rows) row.cells[n].classList.toggle('num', number)
  })
  if (rows.length < 2 || merged) return
  const now = chosen()
  for (const head of heads) {
    const name = head.textContent.trim()
    if (!name) continue
    if (!head.querySelector('button')) {
      const button = document.createElement('button')
      button.type = 'button'
      button.className = 'sort'
      button.textContent = name
      head.replaceChildren(button)
    }
    if (now.table === nameOf(table) && now.column === name) {
      head.setAttribute('aria-sort', now.down ? 'descending' : 'ascending')
      for (const body of table.tBodies) sort(body, head.cellIndex, heads.length, now.down)
    } else {
      head.removeAttribute('aria-sort')
    }
  }
}

const isNumber = cell => /^(–|-?[\d,]+(\.\d+)?%?)$/.test(cell.textContent.trim())

// valueOf is what a cell is sorted by: a time, a number, or its text.
function valueOf(cell) {
  const time = cell.querySelector('time[datetime]')
  if (time) return Date.parse(time.dateTime)
  const text = (cell.dataset.sort ?? cell.textContent).trim()
  const number = Number.parseFloat(text.replaceAll(',', ''))
  return Number.isNaN(number) ? text.toLowerCase() : number
}

// compare has nothing and "–" last, whichever way, and numbers before texts.
function compare(a, b, down) {
  const none = v => v === '' || v === '–'
  if (none(a) !== none(b)) return none(a) ? 1 : -1
  const up = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === 'number' ? -1 : 1
  return down ? -up : up
}

function sort(body, column, columns, down) {
  const rows = [...body.rows].filter(r => r.cells.length === columns)
  const sorted = rows.map(row => ({ row, value: valueOf(row.cells[column]) })).sort((a, b) => compare(a.value, b.value, down))
  if (sorted.some(({ row }, n) => row !== rows[n])) body.append(...sorted.map(({ row }) => row))
}

// sortBy has the address say by which column a table is sorted: up first, then down, then as the server has it.
function sortBy(table, column) {
  const url = new URL(location.href)
  const now = chosen()
  const same = now.table === nameOf(table) && now.column === column
  if (same && now.down) url.searchParams.delete(param)
  else url.searchParams.set(param, `${nameOf(table)}.${column}.${same ? 'down' : 'up'}`)
  history.replaceState(null, '', url)
  return !(same && now.down)
}

document.addEventListener('click', e => {
  const button = e.target.closest?.('button.sort')
  if (!button) return
  const table = button.closest('table')
  if (sortBy(table, button.textContent.trim())) dress(table)
  else location.reload()
})
