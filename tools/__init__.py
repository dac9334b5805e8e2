"""Long-running tools that try to break KuPool; ``README.md`` lists them."""
