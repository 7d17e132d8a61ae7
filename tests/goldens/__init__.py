"""Golden vectors of reference implementations, and the runner that compares ganjax with them."""
