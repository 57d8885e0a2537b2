"""`embrief serve`: models over HTTP, in the words of the services that people's clients were written for."""
