"""A WSGI application: /small, /large, and /echo, which gives back what is posted."""


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/echo":
        body = environ["wsgi.input"].read()
    elif path in ("/small", "/large"):
        body = b"x" * (1024 if path == "/small" else 2_000_000)
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Length", str(len(body)))])
    # gunicorn would send it in answer to HEAD as well.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
