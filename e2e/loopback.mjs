// Preloaded (node --import) before a server that would listen on every address
// of the machine on a port that it was told: it listens on loopback, on a port
// that the system picks, says on standard output which one, and ends when its
// standard input does, so that it never outlives the test that started it.
import net from 'node:net'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port === 'object' || rest.some((arg) => typeof arg !== 'function')) {
    throw new Error('expected listen(port[, callback])')
  }
  this.once('listening', () => console.log(`listening ${this.address().port}`))
  return listen.call(this, { host: '127.0.0.1', port: 0 }, ...rest)
}
process.stdin.on('close', () => process.exit(0)).resume()
