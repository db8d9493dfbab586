// SPDX-License-Identifier: MIT
/* What a gateway does with PHP values that workers sent: merge sessions, re-write, check. Values come as
 * serialize() wrote them (N b i d s S a O C E r R); no length in them is trusted, nesting is limited to PHP's
 * 4096.
 *
 * Classes: only stdClass is taken as known, as in a gateway process of PHP; all other objects keep their
 * class name and properties. Two forms differ from PHP on purpose: an object with text of its own (C:) keeps
 * its text, which PHP without the class throws away; an enum case (E:) is kept, on which PHP without the enum
 * fails. */
#pragma once

#include "base/bytes.h"

/* No merged session may become longer: it has to fit in a packet. */
#define PHP_MERGE_LEN_MAX ((size_t)16 << 20)

/* Appends serialize(array_replace_recursive(unserialize(session), unserialize(patch))). 0; -EPROTO: one of
 * the two is no serialized array, or contains itself; -EMSGSIZE: the result is longer than PHP_MERGE_LEN_MAX;
 * -ENOMEM. On error out is as it was. */
int php_session_merge(struct bytes *out, struct slice session, struct slice patch);

/* Appends serialize(unserialize(value)). 0, -EPROTO, -EMSGSIZE, -ENOMEM; on error out is as it was. */
int php_reserialize(struct bytes *out, struct slice value);
