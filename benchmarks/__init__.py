"""What the product costs and how it grows, measured against named baselines; `make bench` runs them."""
