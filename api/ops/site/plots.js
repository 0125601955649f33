// Draws what figures say in data-plot: {"start": s, "step": s, "unit": "…", "series": [{"name", "class", "values"}]}.
// Without scripts a figure has plain pictures.
/* global uPlot */
const drawn = new Map() // figure's ID -> what is in it
const small = 190

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
const dashes = { submitted: [6, 4], failed: [2, 3], p95: [6, 4] }
const shorten = n => n >= 1e6 ? n / 1e6 + 'M' : n >= 1e4 ? n / 1e3 + 'k' : String(Math.round(n * 100) / 100)

export function draw() {
  for (const [id, { plot, figure }] of drawn) {
    if (document.getElementById(id) === figure) continue
    plot.destroy()
    drawn.delete(id)
  }
  if (typeof uPlot === 'undefined') return
  for (const figure of document.querySelectorAll('figure[data-plot]')) show(figure)
}

function show(figure) {
  const said = figure.dataset.plot
  const known = drawn.get(figure.id)
  if (known?.said === said) return
  const { start, step, unit, series } = JSON.parse(said)
  const xs = series[0].values.map((_, n) => start + n * step)
  const data = [xs, ...series.map(s => s.values)]
  if (known) {
    known.said = said
    known.plot.setData(data)
    return
  }
  const box = document.createElement('div')
  box.className = 'canvas'
  box.dataset.keep = ''
  figure.append(box)
  figure.classList.add('drawn')
  const color = s => css(`--${s.class}`) || css('--link')
  const axis = { stroke: () => css('--soft'), grid: { stroke: () => css('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' }
  const plot = new uPlot({
    width: Math.max(box.clientWidth, 200),
    height: small,
    scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] } },
    cursor: { y: false, drag: { x: false, y: false } },
    legend: { live: true },
    series: [
      { value: (_, v) => v === null ? '–' : clock(v) },
      ...series.map(s => ({
        label: s.name, stroke: () => color(s), width: 2, dash: dashes[s.class], points: { show: false }, spanGaps: false,
        value: (_, v) => v === null || v === undefined ? '–' : `${shorten(v)} ${unit}`
      }))
    ],
    axes: [
      { ...axis, size: 34, values: (_, ticks) => ticks.map(t => clock(t)) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map(shorten) }
    ]
  }, data, box)
  drawn.set(figure.id, { plot, said, figure })
  new ResizeObserver(() => plot.setSize({ width: Math.max(box.clientWidth, 200), height: small })).observe(box)
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot.redraw())
  steer(box, plot, figure, series, unit)
}

function clock(seconds) {
  const asUTC = document.querySelector('[data-times]')?.textContent.endsWith('UTC')
  return new Date(seconds * 1000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', timeZone: asUTC ? 'UTC' : undefined })
}

// steer lets the arrows move through the times, and says what was then.
function steer(box, plot, figure, series, unit) {
  box.tabIndex = 0
  box.setAttribute('role', 'group')
  box.setAttribute('aria-label', `${figure.querySelector('figcaption')?.textContent ?? 'Chart'}. The arrow keys go through the times.`)
  const said = document.createElement('p')
  said.className = 'unseen'
  said.setAttribute('role', 'status')
  box.append(said)
  box.addEventListener('keydown', e => {
    const last = plot.data[0].length - 1
    const at = plot.cursor.idx ?? last
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[e.key]
    if (to === undefined) return
    e.preventDefault()
    const idx = Math.min(Math.max(to, 0), last)
    plot.setCursor({ left: plot.valToPos(plot.data[0][idx], 'x'), top: 10 })
    said.textContent = `${clock(plot.data[0][idx])}: ` + series.map((s, n) => `${plot.data[n + 1][idx] ?? 'no'} ${unit} ${s.name}`).join(', ')
  })
  box.addEventListener('blur', () => plot.setCursor({ left: -10, top: -10 }))
}
