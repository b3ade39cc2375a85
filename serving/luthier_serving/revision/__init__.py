"""The application of one model version: `app` is what Ray Serve imports. It has no route and is called by handle."""
