/*
 * echo_load - load for echo servers (one thread, epoll), for bench/tlv.py.
 *
 *   cc -O2 -Wall -Wextra -o echo_load echo_load.c
 *   echo_load HOST PORT CONNECTIONS DEPTH DATA_BYTES WARMUP_S SECONDS SERVER_PID
 *
 * Every connection keeps DEPTH messages "length u32 LE, id u32 LE, data" outstanding, and takes
 * as many bytes back for an answer. One JSON line goes to stdout: the answers in the measured
 * window, the server's CPU in it, in seconds, and how many answers were not what was sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct conn {
	int fd;
	size_t unsent;      /* bytes of requests that the kernel has not taken */
	size_t sent_off;    /* where in a message the next byte to send is */
	size_t got;         /* bytes of the answer that has begun */
};

static char *message;       /* as many copies as are outstanding */
static size_t size;         /* of one */
static int depth;
static uint64_t answers, wrong;

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
	fprintf(stderr, "echo_load: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* CPU of the thread that the reactor runs in, in seconds: the first figure of schedstat, in ns. */
static double cpu_of(const char *pid) {
	char path[64];
	unsigned long long ns = 0;
	snprintf(path, sizeof path, "/proc/%s/schedstat", pid);
	FILE *f = fopen(path, "r");
	if (!f || fscanf(f, "%llu", &ns) != 1) die(path);
	fclose(f);
	return ns / 1e9;
}

static void flush(struct conn *c) {
	while (c->unsent) {
		ssize_t n = send(c->fd, message + c->sent_off, c->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) return;
		if (n < 0) die("send");
		c->unsent -= n;
		c->sent_off = (c->sent_off + n) % size;
	}
}

static void readable(struct conn *c) {
	static char in[65536];
	ssize_t n = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN) return;
	if (n <= 0) die(n ? "recv" : "the server closed a connection");
	for (ssize_t at = 0; at < n; ) {
		size_t part = size - c->got < (size_t)(n - at) ? size - c->got : (size_t)(n - at);
		if (memcmp(in + at, message + c->got, part)) wrong++;
		at += part;
		c->got += part;
		if (c->got == size) c->got = 0, answers++, c->unsent += size;
	}
	flush(c);
}

int main(int argc, char **argv) {
	if (argc != 9) { fprintf(stderr, "see the top of echo_load.c\n"); return 2; }
	int conns = atoi(argv[3]);
	depth = atoi(argv[4]);
	uint32_t length = atoi(argv[5]), id = 7;
	double warmup = atof(argv[6]), seconds = atof(argv[7]);
	const char *pid = argv[8];
	size = 8 + length;
	message = malloc(size * (depth + 1));
	for (int i = 0; i <= depth; i++) {
		char *m = message + i * size;
		for (int b = 0; b < 4; b++) m[b] = length >> 8 * b, m[4 + b] = id >> 8 * b;
		for (uint32_t b = 0; b < length; b++) m[8 + b] = 'a' + b % 26;
	}
	struct addrinfo hint = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *ai;
	if (getaddrinfo(argv[1], argv[2], &hint, &ai)) die("address");
	struct conn *all = calloc(conns, sizeof *all);
	int ep = epoll_create1(0), one = 1;
	for (int i = 0; i < conns; i++) {
		struct conn *c = &all[i];
		c->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(c->fd, ai->ai_addr, ai->ai_addrlen)) die("connect");
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
	}
	for (int i = 0; i < conns; i++) {
		all[i].unsent = size * depth;
		flush(&all[i]);
	}
	double begin = now() + warmup, end = begin + seconds, cpu = 0;
	uint64_t before = 0;
	int begun = 0;
	for (double t; (t = now()) < end; ) {
		struct epoll_event ev[512];
		if (!begun && t >= begin) begun = 1, before = answers, cpu = cpu_of(pid);
		int n = epoll_wait(ep, ev, 512, 10);
		for (int i = 0; i < n; i++) readable(ev[i].data.ptr);
	}
	cpu = cpu_of(pid) - cpu;
	printf("{\"answers\":%lu,\"cpu_s\":%.6f,\"wrong\":%lu}\n", answers - before, cpu, wrong);
	return 0;
}
