# Nothing here is for users of the library.
