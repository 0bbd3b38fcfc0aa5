"""Devices that tests stand up on this machine: a board behind a real sshd, and a stand-in for adb."""
