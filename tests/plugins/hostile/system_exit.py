raise SystemExit("this plugin does not like your machine")
