"""Programs that talk to listeners, to other programs, or to the kernel by a socket."""

from __future__ import annotations

from hostile_programs import LIBC, OK, RUNTIME, Hostile, which

PROGRAMS: dict[str, Hostile] = {
    "connects": Hostile("import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)", {RUNTIME}, b""),
    "connects by MPTCP": Hostile(
        "import socket\nsocket.socket(2, 1, 262).connect(('127.0.0.1', @PORT@))", {RUNTIME}, b""
    ),
    "listens": Hostile("import socket\nsocket.create_server(('127.0.0.1', 0))", {RUNTIME}, b""),
    "sends a datagram": Hostile(
        "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', @PORT@))", {RUNTIME}, b""
    ),
    "opens a unix socket": Hostile("import socket\nsocket.socket(socket.AF_UNIX)", {RUNTIME}, b""),
    "opens netlink": Hostile("import socket\nsocket.socket(16, 3, 0)", {RUNTIME}, b""),
    "every kind of socket": Hostile(
        which(
            "[(family, kind) for family in range(46) for kind in (1, 2, 3, 5)]", "socket.socket(*item)", "import socket"
        ),
        {OK},
        b"[]\n",
    ),
    "every kind of pair": Hostile(
        which(
            "[(family, kind) for family in range(46) for kind in (1, 2, 3, 4, 5)]",
            "_socket.socketpair(*item)",
            "import _socket",
        ),
        {OK},
        b"[(1, 1)]\n",
    ),
    "datagram from a pair": Hostile(
        "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '@DGRAM@')", {RUNTIME}
    ),
    "datagram from a pair to an abstract name": Hostile(
        "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0@ABSTRACT@')",
        {RUNTIME},
    ),
    "address given to a stream of a pair": Hostile(
        "import socket\nsocket.socketpair()[0].sendmsg([b'x'], [], 0, '@DGRAM@')", {RUNTIME}
    ),
    "connects a pair elsewhere": Hostile("import socket\nsocket.socketpair()[0].connect('@UNIX@')", {RUNTIME}),
    "connects to a unix socket": Hostile("import socket\nsocket.socket(socket.AF_UNIX).connect('@UNIX@')", {RUNTIME}),
    "connects to an abstract socket": Hostile(
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0@ABSTRACT@')", {RUNTIME}
    ),
    "connects with data in the first packet": Hostile(
        "import socket\nsocket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', @PORT@))", {RUNTIME}
    ),
    "connects by calls of its own": Hostile(
        LIBC + "import struct\naddress = struct.pack('=HHI8x', 2, (@PORT@ >> 8) | (@PORT@ & 255) << 8, 0x0100007F)\n"
        "print([libc.connect(n, address, 16) for n in range(-1, 9)] == [-1] * 10, libc.socket(2, 1, 0))",
        {OK},
        b"True -1\n",
    ),
    "sends a datagram by UDP": Hostile(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @UDP@))", {RUNTIME}
    ),
    "fetches a page": Hostile("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@')", {RUNTIME}),
    "resolves a name": Hostile("import socket\nsocket.getaddrinfo('localhost.example', 80)", {RUNTIME}),
    "connects by asyncio": Hostile(
        "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', @PORT@))", {RUNTIME}
    ),
    "serves by asyncio": Hostile(
        "import asyncio\nasync def main(): await asyncio.start_unix_server(print, '@DIR@/altlas-was-here')\n"
        "asyncio.run(main())",
        {RUNTIME},
    ),
    "writes to the system's log": Hostile("import syslog\nsyslog.syslog('x')\nprint('unheard')", {OK}, b"unheard\n"),
    "passes its descriptors round": Hostile(
        "import socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0, 1, 2, a.fileno(), b.fileno()])\n"
        "print(len(socket.recv_fds(b, 1, 9)[1]))\nsocket.send_fds(a, [b'x'], [a.fileno(), b.fileno()])",
        {OK},
        b"5\n",
    ),
    "takes what others share by System V": Hostile(
        LIBC + "calls = ((29, 7, 4096, 0o1666), (30, 0, 0, 0), (31, 0, 2, 0), (64, 7, 1, 0o1666), (66, 0, 0, 0), (68, "
        "7, 0o1666),"
        " (71, 0, 0, 0))\nprint({libc.syscall(*items) for items in calls})",
        {OK},
        b"{-1}\n",
    ),
    "opens a message queue": Hostile(
        LIBC + "print(libc.syscall(240, b'altlas-was-here', 0o102, 0o666, 0), libc.syscall(241, b'altlas'))",
        {OK},
        b"-1 -1\n",
    ),
    "polls its input": Hostile("import select\nselect.epoll().register(0)", {RUNTIME}),
}
