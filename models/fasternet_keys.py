KEY_MAPS = {}
