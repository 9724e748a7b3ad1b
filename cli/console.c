// SPDX-License-Identifier: Apache-2.0
/*
 * The person's terminal while a VM runs; see console.h.
 *
 * Theory of operation. One poll loop. The terminal is raw but for output processing, so that lines that
 * other programs write to it stay lines. Input goes to the guest byte by byte, but for Ctrl-], which stops
 * the guest's output and shows a line of choices; the next key is the answer. Requests go to the VM's control
 * socket, the reply to "status" is shown, other replies and events are read and dropped. Output that the
 * terminal does not take makes us stop reading from the guest: the VM keeps and at last drops it, and no one waits.
 *
 * A terminal that goes away (SIGHUP, or the end of its input) is the power button for the guest; nobody is left to
 * insist if it does not heed that, so we do after HANGUP_NS.
 */
#include "cli/console.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "cli/cli.h"

#define KEY_MENU 0x1d /* Ctrl-] */
#define CHUNK 4096u
#define LAST_WORDS_MS 2000 /* for output when the VM has ended */
#define HANGUP_NS (30 * NS_PER_SEC) /* for a guest to power off when its terminal is gone */

struct console {
	pid_t pid;
	int serial_fd, control_fd, signal_fd;
	bool input_open, menu_open, ended;
	uint64_t quit_at_ns; /* the terminal is gone, and this is when the VM has to be; 0: no */
	int status;
	char to_guest[CHUNK];
	size_t to_guest_used;
	char line[65536]; /* of the control socket */
	size_t line_used;
	bool line_too_long;
};

void terminal_raw(struct terminal *t)
{
	struct termios raw;

	t->raw = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->before) == 0;
	if (!t->raw)
		return;
	raw = t->before;
	cfmakeraw(&raw);
	raw.c_oflag = t->before.c_oflag;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

void terminal_restore(struct terminal *t)
{
	if (t->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &t->before);
	t->raw = false;
}

/* Those that console_run() waits for. */
static void our_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGCHLD);
}

void console_block_signals(void)
{
	sigset_t set;

	our_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * To the person. What cannot be written (terminal gone, pipe closed) is lost, and so is what a reader that has
 * stopped reading does not take when a signal comes: that must still reach the guest.
 */
static void show(struct console *c, const char *data, size_t len)
{
	while (len) {
		struct pollfd p[2] = { { .fd = STDOUT_FILENO, .events = POLLOUT }, { .fd = c->signal_fd, .events = POLLIN } };
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (!p[0].revents && p[1].revents)
			return;
		if (!p[0].revents)
			continue;
		n = write(STDOUT_FILENO, data, MIN(len, PIPE_BUF));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return;
		data += n;
		len -= n;
	}
}

static void say(struct console *c, const char *text)
{
	show(c, text, strlen(text));
}

static void request(struct console *c, const char *name)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "{\"id\": \"%s\", \"request\": \"%s\"}\n", name, name);

	if (send(c->control_fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		say(c, "maru: the VM does not answer\r\n");
}

static void to_guest(struct console *c, const char *data, size_t len)
{
	if (c->serial_fd < 0)
		return;
	len = MIN(len, sizeof(c->to_guest) - c->to_guest_used);
	memcpy(c->to_guest + c->to_guest_used, data, len);
	c->to_guest_used += len;
}

static void flush_to_guest(struct console *c)
{
	ssize_t n;

	if (!c->to_guest_used || c->serial_fd < 0)
		return;
	n = send(c->serial_fd, c->to_guest, c->to_guest_used, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		n = c->to_guest_used;
	memmove(c->to_guest, c->to_guest + n, c->to_guest_used - n);
	c->to_guest_used -= n;
}

/* ---- The menu ---------------------------------------------------------------------------------- */

static void menu_show(struct console *c)
{
	c->menu_open = true;
	say(c, "\r\n[maru] p: power button  r: reset  s: status  q: quit  Ctrl-]: send it to the guest  other: back > ");
}

static void menu_answer(struct console *c, char key)
{
	static const char menu_key = KEY_MENU;

	c->menu_open = false;
	say(c, "\r\n");
	switch (key) {
	case 'p':
		request(c, "power-button");
		break;
	case 'r':
		request(c, "reset");
		break;
	case 's':
		request(c, "status");
		break;
	case 'q':
		request(c, "quit");
		break;
	case KEY_MENU:
		to_guest(c, &menu_key, 1);
		break;
	}
}

static void say_and_free(struct console *c, char *text)
{
	say(c, text);
	free(text);
}

/* A text of the VM's process, which parses what a guest sends. */
static void say_printable(struct console *c, const json_t *text)
{
	say_and_free(c, cli_printable(text, CLI_REFUSAL_BYTES));
}

static void show_status(struct console *c, json_t *result)
{
	char text[128], up[32], memory[32];
	const char *part;
	json_t *state;

	say(c, "[maru] ");
	say_printable(c, json_object_get(result, "name"));
	say(c, " is ");
	say_printable(c, json_object_get(result, "state"));
	snprintf(text, sizeof(text), ", up %s, %u vCPUs, %s, engine ", cli_format_uptime(cli_number(result, "uptime_ns"), up, sizeof(up)),
		 (unsigned)cli_number(result, "cpus"), cli_format_size(cli_number(result, "memory"), memory, sizeof(memory)));
	say(c, text);
	say_printable(c, json_object_get(result, "engine"));
	say(c, "; sandbox:");
	json_object_foreach(json_object_get(result, "sandbox"), part, state) {
		say(c, " ");
		say_and_free(c, cli_printable_name(part, CLI_REFUSAL_BYTES));
		say(c, " ");
		say_printable(c, state);
		say(c, ";");
	}
	say(c, "\r\n");
}

/* ---- The control socket ------------------------------------------------------------------------- */

static void control_line(struct console *c, const char *line, size_t len)
{
	json_t *o = json_loadb(line, len, 0, NULL);
	const char *id = json_string_value(json_object_get(o, "id"));
	const json_t *refusal = json_object_get(o, "error");

	if (id && json_is_string(refusal)) {
		say(c, "[maru] ");
		say_printable(c, refusal);
		say(c, "\r\n");
	} else if (id && !strcmp(id, "status")) {
		show_status(c, json_object_get(o, "result"));
	}
	json_decref(o);
}

static void control_ready(struct console *c)
{
	ssize_t n = recv(c->control_fd, c->line + c->line_used, sizeof(c->line) - c->line_used, MSG_DONTWAIT);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(c->control_fd);
		c->control_fd = -1;
		return;
	}
	c->line_used += n;
	while ((end = memchr(c->line, '\n', c->line_used))) {
		if (!c->line_too_long)
			control_line(c, c->line, end - c->line);
		c->line_too_long = false;
		c->line_used -= end + 1 - c->line;
		memmove(c->line, end + 1, c->line_used);
	}
	if (c->line_used == sizeof(c->line)) {
		c->line_too_long = true;
		c->line_used = 0;
	}
}

/* ---- The end of the terminal -------------------------------------------------------------------- */

static void hang_up(struct console *c)
{
	if (c->quit_at_ns)
		return;
	c->quit_at_ns = loop_now_ns() + HANGUP_NS;
	c->menu_open = false;
	kill(c->pid, SIGTERM);
}

static void insist(struct console *c)
{
	if (c->quit_at_ns && loop_now_ns() >= c->quit_at_ns) {
		c->quit_at_ns += HANGUP_NS;
		kill(c->pid, SIGTERM);
	}
}

/* ---- The loop ----------------------------------------------------------------------------------- */

static void input_ready(struct console *c, bool is_terminal)
{
	char buf[CHUNK];
	ssize_t n = read(STDIN_FILENO, buf, MIN(sizeof(buf), sizeof(c->to_guest) - c->to_guest_used));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		c->input_open = false;
		if (is_terminal)
			hang_up(c);
		return;
	}
	if (!is_terminal) {
		to_guest(c, buf, n);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (c->menu_open)
			menu_answer(c, buf[i]);
		else if (buf[i] == KEY_MENU)
			menu_show(c);
		else
			to_guest(c, buf + i, 1);
	}
}

/* False: there will be no more. */
static bool serial_ready(struct console *c)
{
	char buf[CHUNK];
	ssize_t n = recv(c->serial_fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		close(c->serial_fd);
		c->serial_fd = -1;
		return false;
	}
	show(c, buf, n);
	return true;
}

static void signal_ready(struct console *c)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(c->signal_fd, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo == SIGHUP)
			hang_up(c);
		else if (info.ssi_signo != SIGCHLD)
			kill(c->pid, SIGTERM);
	/* Our other programs have no status that matters, but they must not stay behind as zombies. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != c->pid)
			continue;
		c->ended = true;
		c->status = status;
	}
}

/* What the guest wrote before the end is still in the socket. */
static void last_words(struct console *c)
{
	struct pollfd p = { .fd = c->serial_fd, .events = POLLIN };

	while (c->serial_fd >= 0 && poll(&p, 1, LAST_WORDS_MS) > 0 && serial_ready(c))
		;
}

int console_run(pid_t pid, int serial_fd, int control_fd, struct terminal *t)
{
	struct console c = { .pid = pid, .serial_fd = serial_fd, .control_fd = control_fd };
	bool is_terminal = t->raw;
	sigset_t set;

	our_signals(&set);
	c.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	c.input_open = serial_fd >= 0 || is_terminal;
	while (!c.ended) {
		struct pollfd p[4] = {
			{ .fd = c.signal_fd, .events = POLLIN },
			{ .fd = c.control_fd, .events = POLLIN },
			{ .fd = c.menu_open ? -1 : c.serial_fd, .events = POLLIN },
			{ .fd = c.input_open && c.to_guest_used < sizeof(c.to_guest) ? STDIN_FILENO : -1, .events = POLLIN },
		};

		if (c.to_guest_used)
			p[2].events |= POLLOUT;
		/* The timeout: should a SIGCHLD have come before we could hear it. */
		if (poll(p, 4, 1000) < 0 && errno != EINTR)
			break;
		signal_ready(&c);
		insist(&c);
		if (p[1].revents)
			control_ready(&c);
		if (p[2].revents & (POLLIN | POLLHUP | POLLERR))
			serial_ready(&c);
		if (p[3].revents)
			input_ready(&c, is_terminal);
		flush_to_guest(&c);
	}
	last_words(&c);
	close(c.signal_fd);
	if (c.serial_fd >= 0)
		close(c.serial_fd);
	if (c.control_fd >= 0)
		close(c.control_fd);
	return c.status;
}
