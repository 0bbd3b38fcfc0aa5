// Preloaded into the loopback board's sshd. It believes to be an ordinary user, so it needs neither an account of its
// own on this host nor a folder in /run to drop privileges into, and serves one login: that user's.
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>

enum { ID = 1000 };

static struct passwd board = {
    .pw_name = "board",
    .pw_passwd = "*",
    .pw_uid = ID,
    .pw_gid = ID,
    .pw_gecos = "",
    .pw_dir = "/",
    .pw_shell = "/bin/sh",
};

uid_t getuid(void) { return ID; }
uid_t geteuid(void) { return ID; }
gid_t getgid(void) { return ID; }
gid_t getegid(void) { return ID; }
struct passwd *getpwuid(uid_t id) { return id == ID ? &board : NULL; }
struct passwd *getpwnam(const char *name) { return strcmp(name, board.pw_name) == 0 ? &board : NULL; }
