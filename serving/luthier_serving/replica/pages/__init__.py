"""The two pages for people. They are self-contained: they load nothing from another host.

The content security policy in the headers enforces that, so that a user's text cannot do harm in them.
"""

from importlib.resources import files

TRY_PAGE = files(__name__).joinpath("try.html").read_text(encoding="utf-8")
DOCS_PAGE = files(__name__).joinpath("docs.html").read_text(encoding="utf-8")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
