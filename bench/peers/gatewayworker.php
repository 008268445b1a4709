<?php
// The bench's protocol on GatewayWorker: `J` joins the room or the group that it names, `P…` and `G…` publish, all else is echoed.

use GatewayWorker\BusinessWorker;
use GatewayWorker\Gateway;
use GatewayWorker\Lib\Gateway as Clients;
use GatewayWorker\Register;
use Workerman\Worker;

require getenv('GATEWAYWORKER') . '/vendor/autoload.php';

if ($argv[1] === 'version') {
    $loop = extension_loaded('event') ? 'event' : 'select';
    echo 'GatewayWorker on Workerman ' . Worker::VERSION . ', PHP ' . PHP_VERSION . ", $loop\n";
    exit;
}

class Events
{
    public static function onMessage($client, $message)
    {
        switch ($message[0] ?? '') {
            case 'J':
                Clients::joinGroup($client, $message === 'J' ? 'room' : substr($message, 1));
                break;
            case 'P':
                Clients::sendToGroup('room', $message);
                break;
            case 'O':
                Clients::sendToGroup('room', $message, [$client]);
                break;
            case 'G':
                Clients::sendToGroup(substr($message, 1, 8), $message);
                break;
            default:
                Clients::sendToCurrentClient($message);
        }
    }
}

$port = (int) $argv[2];
$argv = [$argv[0], 'start'];
// A port that nobody has now.
function free_port(): int
{
    $socket = stream_socket_server('tcp://127.0.0.1:0');
    return (int) substr(strrchr(stream_socket_get_name($socket, false), ':'), 1);
}

$register = '127.0.0.1:' . free_port();
new Register("text://$register");

$gateway = new Gateway("websocket://127.0.0.1:$port");
$gateway->count = 1;
$gateway->lanIp = '127.0.0.1';
$gateway->startPort = free_port();
$gateway->pingInterval = 0;
$gateway->registerAddress = $register;

$worker = new BusinessWorker();
$worker->count = 1;
$worker->eventHandler = Events::class;
$worker->registerAddress = $register;

Worker::$pidFile = getcwd() . '/workerman.pid';
Worker::$logFile = getcwd() . '/workerman.log';
Worker::runAll();
