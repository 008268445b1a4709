<?php
// The bench's protocol on GatewayWorker: `J…` joins the room, `P…` goes to all of it, all else is echoed.

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
                Clients::joinGroup($client, 'room');
                break;
            case 'P':
                Clients::sendToGroup('room', $message);
                break;
            default:
                Clients::sendToCurrentClient($message);
        }
    }
}

$port = (int) $argv[2];
$argv = [$argv[0], 'start'];
// Ports beside the clients' one, which nobody else was given.
$register = '127.0.0.1:' . ($port + 1);
new Register("text://$register");

$gateway = new Gateway("websocket://127.0.0.1:$port");
$gateway->count = 1;
$gateway->lanIp = '127.0.0.1';
$gateway->startPort = $port + 2;
$gateway->pingInterval = 0;
$gateway->registerAddress = $register;

$worker = new BusinessWorker();
$worker->count = 1;
$worker->eventHandler = Events::class;
$worker->registerAddress = $register;

Worker::$pidFile = getcwd() . '/workerman.pid';
Worker::$logFile = getcwd() . '/workerman.log';
Worker::runAll();
