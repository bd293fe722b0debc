"""What applications do with files on a server, by impacket: HOST PORT. Says what each call came to."""
import io
import sys

from impacket.smb3structs import SMB2_DIALECT_21
from impacket.smbconnection import SessionError, SMBConnection

host, port = sys.argv[1], int(sys.argv[2])
connection = SMBConnection(host, host, sess_port=port, preferredDialect=SMB2_DIALECT_21)
connection.login("anybody", "anything")
content = bytes(range(256)) * 1000
connection.putFile("files", "a.bin", io.BytesIO(content).read)
read = io.BytesIO()
connection.getFile("files", "a.bin", read.write)
print("read", read.getvalue() == content)
print("names", sorted(it.get_longname() for it in connection.listPath("files", "*")))
try:
    connection.getFile("files", "missing.bin", read.write)
except SessionError as error:
    print("missing", error.getErrorString()[0])
connection.deleteFile("files", "a.bin")
connection.logoff()
connection.close()
