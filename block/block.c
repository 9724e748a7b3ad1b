// SPDX-License-Identifier: Apache-2.0
/*
 * The block layer's front: takes requests from a device model, runs them on worker threads, brings the
 * answers back into the loop.
 *
 * Theory of operation. A disk has a queue, WORKERS threads that take requests from it and call the
 * format's synchronous functions, and a list of finished requests. A worker that puts the first request
 * on that list signals an eventfd; the loop takes the whole list and calls done() for each. (An eventfd
 * and not loop_post(), because a watched descriptor can be detached: closing a disk leaves nothing
 * behind in the loop.)
 *
 * How many workers. One that waits for the host's disk costs nothing, and a disk is faster with more requests at a time: all of them
 * work. One that only copies from and to the host's page cache competes with the guest's processors, which it is to serve: then there are
 * as many as half the host's processors. Which it is, is known from the last requests: a thread that has waited says so (getrusage()).
 * Of a flush it is known beforehand: who is in one does not count.
 *
 * Order: requests run and finish in any order. A flush covers what completed before it was submitted:
 * such a request is in the kernel's cache or in the format's tables by then, and the format's flush
 * writes both out, so nothing needs to wait for anything.
 *
 * Threading: submit, drain, close and the completion run in the loop's monitor; `lock` guards queue,
 * finished list and the number of those at work between it and the workers. Workers take no signals.
 */
#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/stack.h"
#include "base/util.h"
#include "block/driver.h"

#define WORKERS 4
#define WAITING_LASTS 64 /* requests after one that has waited, for which it is thought that others wait, too */
#define REPORT_EVERY_NS (60 * NS_PER_SEC)

struct block_device {
	struct block_image *image;
	struct loop *loop;
	struct loop_fd wakeup;
	int event_fd;
	unsigned in_flight; /* submitted, done() not yet returned; loop's monitor only */
	struct block_counters counters; /* as above */
	uint64_t reported_ns; /* when the host's trouble was last reported; 0: never; as above */

	pthread_mutex_t lock;
	sem_t work; /* a worker waits here until it is to look at the queue */
	unsigned active; /* those who look, or are told to */
	unsigned flushing; /* of those, in a flush */
	unsigned active_most; /* while requests do not wait */
	unsigned waiting; /* 0: requests do not wait */
	pthread_cond_t finished_some; /* drain waits here */
	struct block_request *queue_head, **queue_tail;
	struct block_request *finished_head, **finished_tail;
	bool stopping;
	bool signalled; /* the eventfd is set */

	unsigned workers;
	pthread_t worker[WORKERS];
};

static int run_request(struct block_image *img, struct block_request *req)
{
	struct iov_cursor cur = { req->iov, req->iov_count, 0 };
	uint64_t offset = req->offset_bytes, len = req->length_bytes, end;

	if (req->op == BLOCK_FLUSH)
		return img->driver->flush(img);
	if (offset % BLOCK_SECTOR || len % BLOCK_SECTOR ||
	    __builtin_add_overflow(offset, len, &end) || end > img->size_bytes)
		return -EINVAL;
	if (req->op == BLOCK_READ || req->op == BLOCK_WRITE)
		if (req->iov_count < 0 || iov_bytes(req->iov, req->iov_count) != len)
			return -EINVAL;
	if (req->op != BLOCK_READ && img->readonly)
		return -EROFS;
	if (len == 0)
		return 0;
	switch (req->op) {
	case BLOCK_READ:
		return img->driver->read(img, offset, &cur, len);
	case BLOCK_WRITE:
		return img->driver->write(img, offset, &cur, len);
	case BLOCK_DISCARD:
		return img->driver->discard(img, offset, len);
	case BLOCK_WRITE_ZEROES:
		return img->driver->write_zeroes(img, offset, len, req->may_unmap);
	default:
		return -EINVAL;
	}
}

/* How often this thread has waited for something. */
static long times_waited(void)
{
	struct rusage use = { 0 };

	getrusage(RUSAGE_THREAD, &use);
	return use.ru_nvcsw;
}

/* With the lock: whether one more is to look at the queue, who then counts as one that does. */
static bool take_worker(struct block_device *dev)
{
	unsigned most = dev->waiting ? WORKERS : MIN(dev->active_most + dev->flushing, WORKERS);

	if (!dev->queue_head || dev->active >= most)
		return false;
	dev->active++;
	return true;
}

/* Not more often than somebody has said so: each counts as one at work. */
static void wait_for_work(struct block_device *dev)
{
	while (sem_wait(&dev->work))
		assert(errno == EINTR);
}

static void *worker_main(void *opaque)
{
	struct block_device *dev = opaque;

	prctl(PR_SET_NAME, "disk");
	wait_for_work(dev);
	pthread_mutex_lock(&dev->lock);
	for (;;) {
		struct block_request *req = dev->queue_head;
		bool more, flush;
		long waited;

		if (!req) {
			if (dev->stopping)
				break;
			dev->active--;
			pthread_mutex_unlock(&dev->lock);
			wait_for_work(dev);
			pthread_mutex_lock(&dev->lock);
			continue;
		}
		dev->queue_head = req->next;
		if (!dev->queue_head)
			dev->queue_tail = &dev->queue_head;
		flush = req->op == BLOCK_FLUSH;
		dev->flushing += flush;
		more = take_worker(dev);
		pthread_mutex_unlock(&dev->lock);
		if (more)
			sem_post(&dev->work);

		waited = times_waited();
		req->result = run_request(dev->image, req);
		waited = times_waited() - waited;

		pthread_mutex_lock(&dev->lock);
		dev->flushing -= flush;
		dev->waiting = waited ? WAITING_LASTS : dev->waiting ? dev->waiting - 1 : 0;
		req->next = NULL;
		*dev->finished_tail = req;
		dev->finished_tail = &req->next;
		pthread_cond_signal(&dev->finished_some);
		if (!dev->signalled) {
			dev->signalled = true;
			/* Who is woken wants the lock. The device stays: it waits for its workers. */
			pthread_mutex_unlock(&dev->lock);
			eventfd_write(dev->event_fd, 1);
			pthread_mutex_lock(&dev->lock);
		}
	}
	pthread_mutex_unlock(&dev->lock);
	return NULL;
}

/* The guest sees that the request has failed; the person who runs it is told too, but not each time. */
static void report_trouble(struct block_device *dev, const struct block_request *req)
{
	uint64_t now = loop_now_ns();

	if (req->result >= 0 || req->result == -EINVAL || req->result == -EROFS)
		return; /* the latter are the guest's doing */
	if (dev->reported_ns && now - dev->reported_ns < REPORT_EVERY_NS)
		return;
	dev->reported_ns = now;
	if (req->op == BLOCK_FLUSH && atomic_load(&dev->image->sync_error)) /* what has become of it is not known, nor may a later one succeed */
		log_error("disk '%s': what the guest has written cannot be brought to the host's storage: %s; each flush is an I/O error "
			  "for the guest until its VM is started anew",
			  dev->image->name, strerror(-req->result));
	else if (req->result == -ENOSPC)
		log_error("disk '%s': no space is left for it on the host; the guest gets an I/O error for what it writes, until there is some",
			  dev->image->name);
	else
		log_error("disk '%s': the guest gets an I/O error: %s", dev->image->name,
			  strerror(-req->result));
}

static void count(struct block_counters *c, const struct block_request *req)
{
	if (req->result < 0) {
		c->errors++;
	} else if (req->op == BLOCK_READ) {
		c->reads++;
		c->read_bytes += req->length_bytes;
	} else if (req->op == BLOCK_WRITE) {
		c->writes++;
		c->written_bytes += req->length_bytes;
	}
}

void block_get_counters(const struct block_device *dev, struct block_counters *out)
{
	*out = dev->counters;
}

/* Calls done() for everything that has finished; @wait: for at least one. */
static void complete_finished(struct block_device *dev, bool wait)
{
	struct block_request *req;

	pthread_mutex_lock(&dev->lock);
	while (wait && !dev->finished_head)
		pthread_cond_wait(&dev->finished_some, &dev->lock);
	req = dev->finished_head;
	dev->finished_head = NULL;
	dev->finished_tail = &dev->finished_head;
	pthread_mutex_unlock(&dev->lock);
	while (req) {
		struct block_request *next = req->next; /* done() may submit it again */

		req->next = NULL;
		count(&dev->counters, req);
		report_trouble(dev, req);
		req->done(req);
		assert(dev->in_flight > 0);
		dev->in_flight--;
		req = next;
	}
}

static void on_wakeup(void *opaque, uint32_t events UNUSED)
{
	struct block_device *dev = opaque;
	eventfd_t value;

	pthread_mutex_lock(&dev->lock);
	eventfd_read(dev->event_fd, &value);
	dev->signalled = false;
	pthread_mutex_unlock(&dev->lock);
	complete_finished(dev, false);
}

void block_submit(struct block_device *dev, struct block_request *req)
{
	bool wake;

	assert(req->done);
	req->device = dev;
	req->next = NULL;
	dev->in_flight++;
	pthread_mutex_lock(&dev->lock);
	*dev->queue_tail = req;
	dev->queue_tail = &req->next;
	wake = take_worker(dev);
	pthread_mutex_unlock(&dev->lock);
	if (wake)
		sem_post(&dev->work); /* who is woken wants the lock */
}

void block_drain(struct block_device *dev)
{
	while (dev->in_flight > 0)
		complete_finished(dev, true);
}

static void stop_workers(struct block_device *dev)
{
	pthread_mutex_lock(&dev->lock);
	dev->stopping = true;
	pthread_mutex_unlock(&dev->lock);
	for (unsigned i = 0; i < dev->workers; i++)
		sem_post(&dev->work);
	for (unsigned i = 0; i < dev->workers; i++)
		pthread_join(dev->worker[i], NULL);
	dev->workers = 0;
}

static void device_free(struct block_device *dev)
{
	sem_destroy(&dev->work);
	pthread_cond_destroy(&dev->finished_some);
	pthread_mutex_destroy(&dev->lock);
	if (dev->event_fd >= 0)
		close(dev->event_fd);
	free(dev);
}

static unsigned half_the_processors(void)
{
	cpu_set_t set;

	/* It fails when there are more than the set holds: enough. */
	return sched_getaffinity(0, sizeof(set), &set) ? WORKERS : MAX(MIN(CPU_COUNT(&set) / 2u, WORKERS), 1u);
}

static struct error *start_workers(struct block_device *dev)
{
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* what the threads inherit */
	while (dev->workers < WORKERS && err == 0) {
		err = stack_start_thread(&dev->worker[dev->workers], worker_main, dev);
		if (err == 0)
			dev->workers++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return error_errno(err, "cannot start the threads of disk '%s'", dev->image->name);
	return NULL;
}

struct error *block_open(struct loop *loop, const struct block_open *how, struct block_device **out)
{
	struct block_device *dev = calloc(1, sizeof(*dev));
	struct error *err;

	if (!dev)
		return error_new("out of memory opening disk '%s'", how->name);
	dev->loop = loop;
	dev->queue_tail = &dev->queue_head;
	dev->finished_tail = &dev->finished_head;
	pthread_mutex_init(&dev->lock, NULL);
	sem_init(&dev->work, 0, 0);
	dev->active_most = half_the_processors();
	pthread_cond_init(&dev->finished_some, NULL);
	dev->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (dev->event_fd < 0) {
		err = error_errno(errno, "cannot open disk '%s'", how->name);
		goto fail;
	}
	err = loop_fd_add(loop, &dev->wakeup, dev->event_fd, EPOLLIN, on_wakeup, dev);
	if (err)
		goto fail;
	err = image_open_chain(how, &dev->image);
	if (err)
		goto fail_watch;
	err = start_workers(dev);
	if (err)
		goto fail_image;
	*out = dev;
	return NULL;

fail_image:
	stop_workers(dev);
	image_release(dev->image);
fail_watch:
	loop_fd_remove(&dev->wakeup);
fail:
	device_free(dev);
	return err;
}

void block_close(struct block_device *dev)
{
	if (!dev)
		return;
	block_drain(dev);
	stop_workers(dev);
	loop_fd_remove(&dev->wakeup);
	image_close(dev->image);
	device_free(dev);
}

uint64_t block_size_bytes(const struct block_device *dev)
{
	return dev->image->size_bytes;
}

bool block_is_readonly(const struct block_device *dev)
{
	return dev->image->readonly;
}

const char *block_name(const struct block_device *dev)
{
	return dev->image->name;
}
