"""`embrief serve`: models over HTTP, in the words of the services that people's clients were written for.

`app.create_app` makes the ASGI application, `run.serve` runs it. Nothing but `settings` is light to import.
"""
