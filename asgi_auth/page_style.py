"""The stylesheet of the pages: light and dark, from 320 px on. An application adds to it by ``Pages(css=…)``."""

STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; --page: #f3f5f9; --card: #fff; --text: #18202e;
  --soft: #536075; --line: #d5dce6; --edge: #74829a; --accent: #1d4ed8; --on-accent: #fff; --bad: #b3261e;
  --bad-back: #fdeeec; --good: #14603a; --good-back: #e5f4ea; --wait: #7a4a00; --wait-back: #fdf0d9 }
@media (prefers-color-scheme: dark) { :root { --page: #10151e; --card: #19212e; --text: #e7ecf4; --soft: #a6b2c5;
  --line: #303c50; --edge: #7b8aa3; --accent: #8fb4ff; --on-accent: #0c1a36; --bad: #ffb4ab; --bad-back: #3b1f20;
  --good: #8fdcb0; --good-back: #16301f; --wait: #f0c577; --wait-back: #372a12 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere }
header { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .25rem 1rem;
  padding: .75rem 1.25rem; background: var(--card); border-bottom: 1px solid var(--line) }
nav { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.25rem }
.brand { margin: 0; padding: .5rem 0; font-weight: 700; color: inherit; text-decoration: none }
main { width: min(100% - 2rem, 27rem); margin: clamp(1rem, 6vw, 5rem) auto 2rem; padding: clamp(1.25rem, 6vw, 2rem);
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem }
main.wide { width: min(100% - 2rem, 44rem) }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem }
h2 { font-size: 1.125rem; line-height: 1.25; margin: 2rem 0 .25rem }
p { margin: 0 0 1rem; text-wrap: pretty }
a { color: var(--accent) }
nav a { padding: .5rem 0 }
label { display: block; font-weight: 600; margin: 1rem 0 .25rem }
input { width: 100%; font: inherit; padding: .6rem .75rem; color: inherit; background: var(--card);
  border: 1px solid var(--edge); border-radius: .4rem }
input[readonly] { background: var(--page); color: var(--soft) }
.logo { display: block; max-height: 2.5rem }
.brand { display: flex; align-items: center; gap: .75rem }
input[aria-invalid=true] { border: 2px solid var(--bad) }
.check { display: flex; align-items: center; gap: .6rem; margin: 1rem 0 0 }
.check label { font-weight: 400; margin: 0 }
.check input { flex: none; width: 1.25rem; height: 1.25rem; margin: 0; accent-color: var(--accent) }
button, .button { display: inline-block; font: inherit; font-weight: 600; text-align: center; text-decoration: none;
  padding: .6rem 1rem; border: 1px solid transparent; border-radius: .4rem; background: var(--accent);
  color: var(--on-accent); cursor: pointer }
button:hover, .button:hover { filter: brightness(1.1) }
header button { padding: .35rem .75rem }
main > form + form { margin-top: .75rem }
.main-act { width: 100%; margin-top: 1.5rem }
.plain { background: transparent; border-color: var(--edge); color: var(--accent) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.problem { color: var(--bad); margin: .25rem 0 0 }
.notice { margin: 0 0 1rem; padding: .6rem .75rem; border-inline-start: .25rem solid; border-radius: .25rem;
  color: var(--good); background: var(--good-back) }
.problem.notice { color: var(--bad); background: var(--bad-back) }
h2 + .notice { margin-top: .75rem }
.links + form { margin-top: 1.5rem }
.soft { color: var(--soft); margin: 0 }
.links { margin: 1.5rem 0 0; padding: 1rem 0 0; border-top: 1px solid var(--line); list-style: none }
.links a { display: inline-block; padding: .25rem 0 }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0 }
.rows { margin: 0 0 .5rem; padding: 0; list-style: none }
.rows li { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .75rem 1.5rem;
  padding: 1rem 0 }
.rows li + li { border-top: 1px solid var(--line) }
.rows .soft { font-size: .875rem }
.rows div { flex: 1 1 16rem }
.rows .acts { flex: none; display: flex; flex-wrap: wrap; gap: .75rem }
.badge { padding: .1rem .5rem; border-radius: 1rem; font-size: .875rem; font-weight: 600; white-space: nowrap;
  color: var(--good); background: var(--good-back) }
.badge.waits { color: var(--wait); background: var(--wait-back) }
.badge.over { color: var(--soft); background: var(--page) }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
"""
