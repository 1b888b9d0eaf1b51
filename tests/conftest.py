"A run in the background hands on that Ctrl+C is to be ignored; the pages that the tests start are ended by it."
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
