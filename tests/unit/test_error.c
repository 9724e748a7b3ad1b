/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.h */
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/tap.h"

int main(void)
{
	char *longer = malloc(5001);
	struct error *err;

	err = error_new("disk %s is %d years old", "a.img", 7);
	is_str(error_message(err), "disk a.img is 7 years old",
	       "a new error says what it was told");
	is_u64((uint64_t)error_code(err), 0, "and has no errno value");
	error_free(err);

	err = error_errno(ENOENT, "cannot open %s", "/nowhere");
	is_str(error_message(err), "cannot open /nowhere: No such file or directory",
	       "errno text follows");
	is_u64((uint64_t)error_code(err), ENOENT, "the errno value is kept");
	err = error_wrap(err, "cannot start VM %u", 3u);
	is_str(error_message(err),
	       "cannot start VM 3: cannot open /nowhere: No such file or directory",
	       "wrapping puts the new text first");
	err = error_wrap(err, "100%%");
	is_str(error_message(err),
	       "100%: cannot start VM 3: cannot open /nowhere: No such file or directory", "twice");
	is_u64((uint64_t)error_code(err), ENOENT, "wrapping keeps the errno value");
	error_free(err);

	err = error_wrap(error_new("50%% of %s", "%s"), "it was");
	is_str(error_message(err), "it was: 50% of %s", "text is not a format a second time");
	error_free(err);

	memset(longer, 'x', 5000);
	longer[5000] = 0;
	err = error_new("%s", longer);
	is_u64(strlen(error_message(err)), 5000, "long text is not cut");
	error_free(err);
	free(longer);

	error_free(NULL);
	ok(true, "freeing no error is harmless");
	return done_testing();
}
