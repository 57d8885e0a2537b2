# The text of a module that cannot be compiled. It is kept in a string for the sake of linters.
exec("def register_models(register:")
