// The snippet of the README: its lock while it works, and while another owner holds the lock. Jedis is stood
// in for by as much of its interface as the snippet uses, with the same results.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.util.UUID;

class Readme {
    public static void main(String[] arguments) throws IOException {
        Jedis jedis = new Jedis(Integer.parseInt(arguments[0]), 15_000);
        Work work = token -> print("held", token.equals(jedis.sendCommand(() -> bytes("FENCE"), "invoice:42")));
        work.locked(jedis, "10000");
        print("released", jedis.sendCommand(() -> bytes("FENCE"), "invoice:42") == null);
        jedis.sendCommand(() -> bytes("LOCK"), "invoice:42", "other", "EX", "30");
        boolean[] worked = {false};
        work = token -> worked[0] = true;
        work.locked(jedis, "50");
        print("refused", !worked[0]);
        jedis.sendCommand(() -> bytes("UNLOCK"), "invoice:42", "other");
    }

    static byte[] bytes(String text) {
        return text.getBytes(UTF_8);
    }

    static void print(String what, boolean isTrue) {
        System.out.println(what + ": " + isTrue);
    }
}

interface Work {
    void work(Object token);

    default void locked(Jedis jedis, String wait) {
        // SNIPPET
    }
}

interface ProtocolCommand {
    byte[] getRaw();
}

class Jedis {
    private final DataInputStream replies;
    private final OutputStream requests;

    Jedis(int port, int timeoutMillis) throws IOException {
        Socket socket = new Socket("127.0.0.1", port);
        socket.setSoTimeout(timeoutMillis);
        replies = new DataInputStream(socket.getInputStream());
        requests = socket.getOutputStream();
    }

    Object sendCommand(ProtocolCommand command, String... arguments) {
        try {
            StringBuilder request = new StringBuilder("*" + (arguments.length + 1) + "\r\n");
            String name = new String(command.getRaw(), UTF_8);
            request.append("$" + name.length() + "\r\n" + name + "\r\n");
            for (String argument : arguments) {
                request.append("$" + argument.getBytes(UTF_8).length + "\r\n" + argument + "\r\n");
            }
            requests.write(request.toString().getBytes(UTF_8));
            return read();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @SuppressWarnings("deprecation")
    private Object read() throws IOException {
        String line = replies.readLine();
        switch (line.charAt(0)) {
            case ':':
                return Long.parseLong(line.substring(1));
            case '$':
                if (line.equals("$-1")) {
                    return null;
                }
                break;
            default:
        }
        throw new IllegalStateException(line);
    }
}
