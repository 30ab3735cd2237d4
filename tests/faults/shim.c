/* Loaded before the C library (LD_PRELOAD): counts the system calls on one bus's files, and makes one of them fail, or
 * lets the process die there; or records what they write, so that the disk after a power cut can be made from it; or
 * sleeps before it lets memory go (munmap).
 *
 * FAULT_PATH names the database; its -wal, -shm and -journal count too. Idle until fault_arm or fault_record is called,
 * or, in processes that cannot call (sqlite3), until FAULT_AT says so in the environment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, KILL, IO_ERROR, FULL, SHORT, TORN };
enum { DATABASE = 1, WAL, SHM, JOURNAL };
#define FILES 1024

static unsigned char file_of[FILES]; /* which of the bus's files a descriptor is of */
static const char *path;
static size_t path_length;
static long calls, at;
static int kind, persistent, log_file = -1;
static useconds_t delay; /* before each munmap, microseconds */

static int which(const char *name) {
  if (!path || strncmp(name, path, path_length)) return 0;
  name += path_length;
  return !*name ? DATABASE : !strcmp(name, "-wal") ? WAL : !strcmp(name, "-shm") ? SHM : !strcmp(name, "-journal") ? JOURNAL : 0;
}

__attribute__((constructor)) static void begin(void) {
  const char *armed = getenv("FAULT_AT"), *how = getenv("FAULT_KIND");
  path = getenv("FAULT_PATH");
  path_length = path ? strlen(path) : 0;
  if (armed && how) at = atol(armed), kind = atoi(how);
}

void fault_path(const char *name) { path = strdup(name), path_length = strlen(path); }
void fault_arm(long n, int what, int always) { calls = 0, at = n, kind = what, persistent = always; }
long fault_count(void) { return calls; }
void fault_delay(unsigned microseconds) { delay = microseconds; }

/* --- recording: op, file, offset, length, then the data */

static void put(char op, int file, int64_t offset, int64_t length, const void *data) {
  static ssize_t (*real)(int, const void *, size_t);
  struct __attribute__((packed)) { char op, file; int64_t offset, length; } head = {op, (char)file, offset, length};
  if (log_file < 0) return;
  if (!real) real = dlsym(RTLD_NEXT, "write");
  if (real(log_file, &head, sizeof head) < 0 || (data && real(log_file, data, length) < 0)) abort();
}
void fault_record(int descriptor) { log_file = descriptor; }
void fault_mark(const char *text) { put('M', 0, 0, (int64_t)strlen(text), text); }

/* What is to happen to this call: NONE, or an error to return, or (never coming back) death. */
static int fate(int file) {
  if (!file || !kind) return NONE;
  ++calls;
  if (persistent ? calls < at : calls != at) return NONE;
  if (kind == KILL) kill(getpid(), SIGKILL);
  return kind;
}
static int file(int descriptor) { return descriptor >= 0 && descriptor < FILES ? file_of[descriptor] : 0; }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(what) return errno = (what) == FULL ? ENOSPC : EIO, -1
#define MAY_FAIL(descriptor) \
  int what = fate(file(descriptor)); \
  if (what) { if (what == TORN) kill(getpid(), SIGKILL); FAIL(what); }

#define OPEN(name) \
  int name(const char *opened, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0, found = which(opened), what = fate(found); \
    va_end(rest); \
    if (what) { if (what == TORN) kill(getpid(), SIGKILL); FAIL(what); } \
    int descriptor = real(opened, flags, mode); \
    if (descriptor >= 0 && descriptor < FILES) file_of[descriptor] = (unsigned char)found; \
    if (descriptor >= 0 && found && flags & O_CREAT) put('C', found, 0, 0, NULL); \
    return descriptor; \
  }
OPEN(open)
OPEN(open64)

int close(int descriptor) {
  REAL(close);
  if (descriptor >= 0 && descriptor < FILES) file_of[descriptor] = 0;
  return real(descriptor);
}

static ssize_t torn(ssize_t (*real)(int, const void *, size_t, off64_t), int descriptor, const void *data, size_t length,
                    off64_t offset, int what) {
  if (what == SHORT || what == TORN) {
    ssize_t half = real(descriptor, data, length / 2, offset);
    if (what == TORN) kill(getpid(), SIGKILL);
    put('W', file(descriptor), offset, half, data);
    return half;
  }
  FAIL(what);
}
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
  REAL(pwrite64);
  int what = fate(file(descriptor));
  if (what) return torn(real, descriptor, data, length, offset, what);
  ssize_t done = real(descriptor, data, length, offset);
  if (done > 0 && file(descriptor) && file(descriptor) != SHM) put('W', file(descriptor), offset, done, data);
  return done;
}
ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
  return pwrite64(descriptor, data, length, offset);
}
ssize_t pread64(int descriptor, void *data, size_t length, off64_t offset) {
  REAL(pread64);
  MAY_FAIL(descriptor)
  return real(descriptor, data, length, offset);
}
int ftruncate64(int descriptor, off64_t length) {
  REAL(ftruncate64);
  MAY_FAIL(descriptor)
  int done = real(descriptor, length);
  if (!done && file(descriptor) && file(descriptor) != SHM) put('T', file(descriptor), 0, length, NULL);
  return done;
}
int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }
#define SYNC(name) \
  int name(int descriptor) { \
    REAL(name); \
    MAY_FAIL(descriptor) \
    int done = real(descriptor); \
    if (!done && file(descriptor)) put('S', file(descriptor), 0, 0, NULL); \
    return done; \
  }
SYNC(fsync)
SYNC(fdatasync)
int unlink(const char *name) {
  REAL(unlink);
  int found = which(name), what = fate(found);
  if (what) { if (what == TORN) kill(getpid(), SIGKILL); FAIL(what); }
  int done = real(name);
  if (!done && found) put('U', found, 0, 0, NULL);
  return done;
}
int munmap(void *memory, size_t length) {
  REAL(munmap);
  if (delay) usleep(delay);
  return real(memory, length);
}
