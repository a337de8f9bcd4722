"""The ratios as a picture: one bar a row on a logarithmic scale, a tick at each goal."""

import html
import math

WIDTH, NAME, BAR, LINE = 1160, 420, 560, 17
COLOURS = {"met": "#2b8a3e", "short": "#c92a2a", "": "#868e96"}


def svg(table, title):
    rows = [r for r in table.rows if r.peer and r.ratio > 0]
    groups = []
    for r in rows:
        if not groups or groups[-1][0] != r.group:
            groups.append((r.group, []))
        groups[-1][1].append(r)
    low = min([-1.0] + [math.log10(r.ratio) for r in rows])
    high = max([1.0] + [math.log10(r.ratio) for r in rows])

    def x(ratio):
        return NAME + BAR * (math.log10(ratio) - low) / (high - low)

    out, y = [], 52
    for name, members in groups:
        y += 12
        out.append(f'<text x="8" y="{y}" font-weight="bold">{html.escape(name)}</text>')
        y += LINE
        for r in members:
            label = f"{r.what}: {r.who} / {r.peer}{' (speed)' if r.speed else ''}"
            left, right = sorted((x(1), x(r.ratio)))
            out.append(f'<text x="{NAME - 8}" y="{y}" text-anchor="end">{html.escape(label)}</text>')
            out.append(f'<rect x="{left:.1f}" y="{y - 10}" width="{max(right - left, 1):.1f}" height="11" '
                       f'fill="{COLOURS[r.met()]}"/>')
            out.append(f'<path d="M{x(r.low):.1f} {y - 4.5}H{x(r.high):.1f}" stroke="black" opacity="0.5"/>')
            if r.goal:
                out.append(f'<path d="M{x(max(r.goal, 10 ** low)):.1f} {y - 12}v15" stroke="black" stroke-width="2"/>')
            out.append(f'<text x="{NAME + BAR + 8}" y="{y}">{r.ratio:.3g}{" goal " + format(r.goal, ".3g") if r.goal else ""}'
                       f' {r.met()}</text>')
            y += LINE
    height = y + 10
    scale = "".join(f'<path d="M{x(10 ** k):.1f} 40V{height - 8}" stroke="#ced4da"/>'
                    f'<text x="{x(10 ** k):.1f}" y="36" text-anchor="middle">{10 ** k:g}</text>'
                    for k in range(math.ceil(low), math.floor(high) + 1))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
            f'font-size="11"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="8" y="16" font-size="13">{html.escape(title)}</text>{scale}{"".join(out)}</svg>\n')
