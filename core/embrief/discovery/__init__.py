"""What there is: models, runtimes and frameworks, built in and from plugins, by their names."""
