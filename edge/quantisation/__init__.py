"""Mixed precision: which layers stay in float, because the network would miss its gate without them."""
