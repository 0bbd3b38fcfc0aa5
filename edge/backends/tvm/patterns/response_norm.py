"""placeholder"""
def match(flow, value):
    return None
