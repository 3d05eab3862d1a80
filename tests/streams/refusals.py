"""The error replies of Redis 7 and 8 and of Valkey 9, by code, from the sources of the three."""

from __future__ import annotations

from streams import CommandRejected, StreamForbidden, StreamRefused, StreamUnavailable
from streams.errors import GroupLost, StreamError

# An outage that passes by itself.
_PASSING = (
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "INPROG Failover already in progress.",
    "IOERR error or timeout reading to target instance",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOMASTERLINK Can't SYNC while not connected with my master",
    "NOREPLICAS Not enough good replicas to write.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
)
# Another node, another type of key, another command: it may last until an operator acts.
_REFUSED = (
    "ASK 3999 127.0.0.1:6381",
    "BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "ERR unknown command 'XADD', with args beginning with: 'a' ",
    "ERR Unknown Redis command called from script script: 3f1c, on @user_script:1.",
    "EXECABORT Transaction discarded because of previous errors.",
    "INVALIDOBJ HyperLogLog is corrupted",
    "MOVED 3999 127.0.0.1:6381",
    "MOVED 3999 redis-2.internal:6379",
    "MOVED 3999 :6379",
    "NOADDR client has no address",
    "NOGOODPRIMARY The primary has no good replicas",
    "NOGOODSLAVE No suitable replica to promote",
    "NOPROTO unsupported protocol version",
    "NOQUORUM 2 usable Sentinels",
    "NOSCRIPT No matching script. Please use EVAL.",
    "NOTBUSY No scripts in execution right now.",
    "REDIRECT 127.0.0.1:6381",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
)
_FORBIDDEN = (
    "DENIED Redis is running in protected mode because protected mode is enabled",
    "NOAUTH Authentication required.",
    "NOPERM User okane has no permissions to run the 'xreadgroup' command",
    "NOPERM this user has no permissions to access one of the keys used as arguments",
    "NOPERM No permissions to access a key",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "ERR ACL failure in script: User okane has no permissions to run the 'xadd' command script: on @user_script:1.",
    "ERR The user executing the script can't run this command or subcommand script: 37c3, on @user_script:1.",
    "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
    "ERR invalid password",
)
# The command itself, or the bytes of the reply: an outage, too, and perhaps a bug of the library.
_REJECTED = (
    "ERR Protocol error: invalid bulk length",
    "ERR syntax error",
    "ERR value is not an integer or out of range",
    "ERR wrong number of arguments for 'xadd' command",
    "ERR DB index is out of range",
    "ERR SELECT is not allowed in cluster mode",
    "ERR user_script:4: attempt to index a nil value script: 37c3, on @user_script:4.",
    "ERR no healthy upstream",
    "MOVED nowhere",
    "ASK 1 two three",
    "lower case, and no code at all",
)
_GROUP_LOST = (
    "NOGROUP No such key '{s}:low' or consumer group 'workers' in XREADGROUP with GROUP option",
    "UNBLOCKED the stream key no longer exists",
)

REPLIES: dict[str, type[StreamError]] = {
    **dict.fromkeys(_PASSING, StreamUnavailable),
    **dict.fromkeys(_REFUSED, StreamRefused),
    **dict.fromkeys(_FORBIDDEN, StreamForbidden),
    **dict.fromkeys(_REJECTED, CommandRejected),
    **dict.fromkeys(_GROUP_LOST, GroupLost),
}
# Replies of no Redis: from a proxy, from another service on this port, or of the wrong shape for the command.
GARBAGE = ("+OK", ":1", "$-1", "*0", "*3\r\n:1\r\n:2\r\n:3", "HTTP/1.1 400 Bad Request", "\x00\x01\x02")
