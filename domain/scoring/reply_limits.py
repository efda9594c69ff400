"""How much a judge may send, and how long it may take: whatever is beyond counts as no answer, or
is cut. The one place where these are stated; docs/judge.md shows them.
"""

from __future__ import annotations

# Of a body, decompressed. 64 positions of 20 alternatives each take a tenth of it; 256 calls in
# flight hold half a gigabyte at most.
MAX_BODY_BYTES = 2 * 2**20

# Of a batch's files, whose requests may have 200 MB.
MAX_BATCH_BYTES = 512 * 2**20

# From the first byte sent to the last one read.
CALL_TIMEOUT_S = 60.0
BATCH_TIMEOUT_S = 900.0
CONNECT_TIMEOUT_S = 10.0

# An endpoint may ask for more patience than our schedule, but not for the whole night; and a
# stated rate under these is no rate of an endpoint that means to answer.
MAX_RETRY_AFTER_S = 120.0
MIN_REQUESTS_PER_MINUTE = 1.0
MIN_TOKENS_PER_MINUTE = 1000.0

# Characters that are kept of a reply (its end, where the answer stands), of a token, of a name,
# and of an error's words.
MAX_TEXT = 100_000
MAX_TOKEN = 200
MAX_WORDS = 500

# APIs give 20.
MAX_ALTERNATIVES = 100

# No prompt or answer has as many.
MAX_TOKENS_STATED = 10_000_000
