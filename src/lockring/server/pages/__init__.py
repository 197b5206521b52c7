"""The dashboard: pages about the cluster, its locks, its groups and its events, for people.

- `dashboard`: which pages there are, and how each is answered: as a page, as JSON, or as a stream.
- `rendering`: templates, and the headers of a page; `streams`: pages that follow what happens.
- `sign_ins`: credentials that were pasted, by the cookie of a browser; `forms`: proof that a form is one of ours.
- `shared_answers`: answers that several viewers with the same rights get at the same time.
- `templates`, `static`: the pages' texts and looks. Nothing is loaded from elsewhere, and nothing is built.
"""
