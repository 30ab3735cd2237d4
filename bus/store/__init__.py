"""Where operations run: open a URL, run an operation in one transaction, translate the driver's errors."""
