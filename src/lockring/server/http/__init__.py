"""HTTP beside the lock port: health, figures and pages, in the server's process and its event loop.

- `parts`: the account that a server of the process gives of itself; `pages`: a page, and how it is answered.
- `visits`: the identity behind a request, and its rights.
- `site`: all pages of a process; `basics`: the pages that every process has.
- `hosts`: the names under which a site may be asked for.
- `port`: listens; `protocol`: one connection, with its bounds.

Only `site`, `basics`, `pages`, `visits` and `protocol` need packages of their own. They are loaded with the first
connection, or some seconds after the start, so that a process starts as fast as without HTTP.
"""
