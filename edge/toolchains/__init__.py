"""What the pipeline needs and brings itself: locked Python environments and tools from the distribution's packages."""
