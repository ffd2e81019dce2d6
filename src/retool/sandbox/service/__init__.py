"""The sandbox over HTTP. Needs the extra `serve`."""
